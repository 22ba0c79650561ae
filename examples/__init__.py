"""The sample photograph: for a first look, and for the gate where no other pictures are at hand. See CREDITS.md."""
