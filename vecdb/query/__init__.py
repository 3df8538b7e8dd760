"""Searches over a snapshot: ``ask`` reads what was asked, ``planner`` chooses scan or graph for
each part, ``execute`` runs and merges; ``recall`` and ``why`` say how far to trust the answer."""
