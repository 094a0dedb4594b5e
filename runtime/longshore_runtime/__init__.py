"""What runs in the pod: the storage initializer (`pull`) and the launcher of the engine (`serve`).

Slim on purpose: no Kubernetes client, no kserve. The registry side, `longshore`, builds on this
package and is never imported from here.
"""
