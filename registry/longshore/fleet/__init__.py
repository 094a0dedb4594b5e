"""From a version to the Kubernetes objects that serve it. Pure: nothing here reads a bucket or talks to a cluster."""
