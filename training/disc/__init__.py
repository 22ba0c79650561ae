"""The second look at the disc: the multi-task network's encoder and decoder, on squares around the disc."""
