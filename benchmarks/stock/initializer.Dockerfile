# KServe's own storage initializer, as its python/storage-initializer.Dockerfile makes it of the published package: installed
# without bytecode (uv compiles none), run as user 1000. The entry point is KServe's file.
ARG PYTHON_BASE

FROM ${PYTHON_BASE} AS packages
COPY peer-kserve-storage.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --no-compile --no-deps --require-hashes --only-binary=:all: \
      --target=/opt/stock --requirement=/tmp/requirements.txt

FROM ${PYTHON_BASE}
COPY --from=packages --chown=1000 /opt/stock /opt/stock
COPY initializer-entrypoint /storage-initializer/scripts/initializer-entrypoint
ENV HOME=/tmp PYTHONPATH=/opt/stock
RUN chmod +x /storage-initializer/scripts/initializer-entrypoint
WORKDIR /tmp
USER 1000
ENTRYPOINT ["/storage-initializer/scripts/initializer-entrypoint"]
