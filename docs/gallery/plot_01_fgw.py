"""
Couple two graphs
=================
"""

import hotnas_torch as ht
print(ht.__version__)
