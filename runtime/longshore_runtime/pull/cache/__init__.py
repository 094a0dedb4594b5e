"""A cache of trees that the pods of a node share: each is fetched once, held against its digest, and read by all.

entries/<digest>/tree/…      the files, read-only, and their manifest
entries/<digest>/witness     what the files looked like when all of their bytes were right; the last thing written
entries/<digest>/size        the bytes that the tree has or will have; the time of its change is that of its last use
leases/<name>                which trees a pod uses
locks/<digest>               who fills or removes an entry; `locks/room` who makes room
"""
