"""The search for the settings of a network, whichever network it is: trials, and the folder that remembers them."""
