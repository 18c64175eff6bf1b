"""Packets, marks, operators, pipelines and their edges: the ground floor, which imports nothing of ours.

Layers, from the bottom: ``errors``, ``jit`` | ``packet``, ``operator``, ``ledger`` | ``wire``, ``edge``, ``snapshot`` |
``pipeline``, ``host`` | ``node``, ``run`` | ``record``, ``summary``, ``terminal``, ``bench``, ``doctor``, and the
command line.
"""
