"""A machine for the head alone, where nodes could not reach the one that ``up`` is called on.

Here: ``choose`` (whether, and which), ``start``, ``stop``, ``ssh`` (to its administration socket). There: ``keeper`` rents,
``accept`` takes orders, ``watch`` starts a head that died, ``relay`` joins an SSH session to the socket.
"""
