"""Ways to break a store, shared by the tests beside: faults, power loss, kills, damage.

``inject`` stands between vecdb and the system calls; ``disk`` replays what it recorded as the
disk images that a power loss may leave; ``farm`` runs code in processes that may die; ``model``
says what a store must hold; ``damage`` changes files and makes their checksums right again, and
``probe`` says what a user gets of them; ``hang`` ends what takes too long.
"""
