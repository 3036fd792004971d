"""Algorithm 2: trajectories from photos of real defects, by reverse synthesis.

Read ``construct.py`` first (one trajectory). The good photo behind a defect is made by ``reverse.py`` (``exemplar.py``,
``patches.py`` and ``canvas.py``) and checked by ``removal.py``; turns come from ``script.py`` and ``thoughts.py``; many
are made by ``production.py``.
"""
