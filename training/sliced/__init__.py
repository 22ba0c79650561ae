"""Long runs in slices: scripts that train for some minutes a call, and weights as small files that travel."""
