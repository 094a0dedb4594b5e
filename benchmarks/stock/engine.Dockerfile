# vLLM as it comes: the same environment as the one behind our launcher.
ARG RUNTIME_BASE
FROM ${RUNTIME_BASE}
ENV HOME=/tmp
WORKDIR /tmp
USER 1000
