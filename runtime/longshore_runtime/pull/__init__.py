"""Getting a tree onto a disk, verified. In a pod this is the storage initializer."""
