"""From bytes, files, lists and DICOM to a `Photo`, and from there to a network's input."""
