"""What each kind of model makes of its outputs."""
