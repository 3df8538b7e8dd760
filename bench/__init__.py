"""Every figure that vecdb claims, one command each; one JSON line per point, all in ``bench/out``.

Rivals install from PyPI into environments of their own, next to what vecdb needs itself::

    python3 -m venv .bench-engine && .bench-engine/bin/pip install -r bench/requirements-engine.txt
    python3 -m venv .bench-db && .bench-db/bin/pip install -r bench/requirements-db.txt

and the commands run from the repository's root, ``.bench-engine/bin/python -m bench.engine`` and so
on. ``--set`` takes ``sift-like`` or another set that :mod:`bench.made` makes on the spot, a path
to an .npz, .hdf5, .fvecs or .fbin file, or the name of an .npz in the folder that ``VECDB_DATA``
names.

=================== ============ ==================================================================
``bench.``          environment  what it measures
=================== ============ ==================================================================
``engine``          engine       recall@10 against QPS, all rivals, with a picture
``breadth``         engine       recall and QPS against hnswlib on sets that nothing was tuned on
``threads``         engine       two search threads against one
``latency``         engine       P99 of eight clients under the same offered load as hnswlib
``overhead``        engine       Python's share of a single search call
``ablation``        engine       each part of the engine turned off, at equal recall; share pruned
``build``           engine       rows per second of building an index
``memory``          engine       resident memory while searching
``filters``         engine, db   QPS and recall of filtered search over selectivity, with a picture
``kernels``         engine       cosine at 1,024 dims against a scalar loop, numkong, simsimd
``compile``         engine       compiling the kernels, cold and cached; first search
``ingest``          db           durable ingest in batches of 1,000 x 384 with metadata
``singles``         db           10,000 single rows, a search after each; files and bytes left
``swaps``           db           whole versions replaced under searching threads, answers checked
``open``            db           open a million rows, get 1,000 ids, first search
``first_use``       db           import, and process start to first answer
=================== ============ ==================================================================

What a reader should know of the method: every library lives in a process of its own and takes
turns with the others (:mod:`bench.harness`); figures are medians of alternating passes with the
lowest and highest beside them; truth is exact and recall counts ties for everyone
(:mod:`bench.datasets`); each rival gets its best code (:mod:`bench.rivals`, :mod:`bench.stores`).
"""
