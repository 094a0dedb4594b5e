# The images that `longshore render` names, and one with the command line.
#
#   docker build --target storage-initializer --tag longshore/storage-initializer:VERSION .
#   docker build --target runtime --tag longshore/runtime:VERSION .
#   docker build --target runtime-cpu --tag longshore/runtime-cpu:VERSION .
#   docker build --target runtime-llamacpp --tag longshore/runtime-llamacpp:VERSION .
#   docker build --target runtime-sglang --tag longshore/runtime-sglang:VERSION .
#   docker build --target runtime-tgi --tag longshore/runtime-tgi:VERSION .
#   docker build --target runtime-trtllm --tag longshore/runtime-trtllm:VERSION .
#   docker build --target tools --tag longshore/tools:VERSION .
#
# All of them run as any user, without privileges, on a read-only root; what they write goes to /tmp.

ARG PYTHON_BASE=docker.io/library/python:3.13.14-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8
ARG RUNTIME_BASE=docker.io/vllm/vllm-openai:v0.30.0@sha256:8a69ffad015f138d7170c4ddc429e230a3bc1c1719f67e14324749df200a4b90
# The version of Python in vLLM's images.
ARG RUNTIME_PYTHON=3.12
# The same release of vLLM, built for CPUs. It could not be pulled where this was written: look up its digest and pin it,
# --build-arg RUNTIME_CPU_BASE=docker.io/vllm/vllm-openai-cpu:v0.30.0@sha256:…
ARG RUNTIME_CPU_BASE=docker.io/vllm/vllm-openai-cpu:v0.30.0
# What sgl-project publishes for the version that the adapter was made for. It could not be pulled where this was written: look up
# its digest and pin it, --build-arg SGLANG_BASE=docker.io/lmsysorg/sglang:v0.5.23@sha256:…
ARG SGLANG_BASE=docker.io/lmsysorg/sglang:v0.5.23
# The same goes for those of text-generation-inference and of TensorRT-LLM.
ARG TGI_BASE=ghcr.io/huggingface/text-generation-inference:3.3.5
ARG TRTLLM_BASE=nvcr.io/nvidia/tensorrt-llm/release:1.3.0rc3

# ---- what the slim images need from the package index; pip stays here
FROM ${PYTHON_BASE} AS initializer-packages
COPY requirements/storage-initializer.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: \
      --target=/opt/longshore --requirement=/tmp/requirements.txt
COPY runtime/longshore_runtime /opt/longshore/longshore_runtime
RUN python3 -m compileall -q /opt/longshore/longshore_runtime

FROM ${PYTHON_BASE} AS tools-packages
COPY requirements/tools.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: \
      --target=/opt/longshore --requirement=/tmp/requirements.txt
COPY runtime/longshore_runtime /opt/longshore/longshore_runtime
COPY registry/longshore /opt/longshore/longshore
RUN python3 -m compileall -q /opt/longshore/longshore /opt/longshore/longshore_runtime

# ---- brings a model's verified files into the pod, before the engine starts
FROM ${PYTHON_BASE} AS storage-initializer
COPY --from=initializer-packages /opt/longshore /opt/longshore
ENV HOME=/tmp PYTHONPATH=/opt/longshore PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 1000
ENTRYPOINT ["python3", "-m", "longshore_runtime.pull"]

# ---- the launcher as an installer would have it: how vLLM's processes find the loader that waits for weights; and libcurl, by which
# these come, for the Python of vLLM's images
FROM ${PYTHON_BASE} AS vllm-launcher
ARG RUNTIME_PYTHON
COPY requirements/runtime-vllm.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: \
      --python-version="${RUNTIME_PYTHON}" --implementation=cp --platform="manylinux_2_28_$(uname -m)" \
      --target=/opt/longshore --requirement=/tmp/requirements.txt
COPY runtime/longshore_runtime /opt/longshore/longshore_runtime
RUN mkdir /opt/longshore/longshore_runtime-0.dist-info && cd /opt/longshore/longshore_runtime-0.dist-info \
 && printf 'Metadata-Version: 2.1\nName: longshore-runtime\nVersion: 0\n' > METADATA \
 && printf '[vllm.general_plugins]\nlongshore = longshore_runtime.serve.engines.vllm_plugin:register\n' > entry_points.txt

# ---- vLLM on GPUs, and the launcher that starts it
FROM ${RUNTIME_BASE} AS runtime
USER 0
ENV HOME=/tmp PYTHONPATH=/opt/longshore PYTHONUNBUFFERED=1
COPY --from=vllm-launcher /opt/longshore /opt/longshore
# The engine's base brings all that the launcher imports, and this says so here if one does not. Bytecode is compiled for
# everything, or each pod would do it again, on a read-only root without keeping it; among thousands of files are templates
# and tests that no Python compiles, hence `|| true`.
RUN python3 -c 'import longshore_runtime.serve.__main__, longshore_runtime.pull.weights' \
 && python3 -c 'from longshore_runtime.ranges.curl import load_curl; assert load_curl(), "RUNTIME_PYTHON is not this version"' \
 && python3 -m compileall -q /opt/longshore \
 && { python3 -m compileall -qq "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" || true; }
# What vLLM wants to know of a model's class before each start, asked now: of the architectures named here, or of all.
ARG ARCHITECTURES=""
ENV LONGSHORE_VLLM_MODELS=/opt/longshore/vllm-models
RUN python3 -m longshore_runtime.serve.engines.vllm_models "${LONGSHORE_VLLM_MODELS}" ${ARCHITECTURES}
WORKDIR /tmp
USER 1000
ENTRYPOINT ["python3", "-m", "longshore_runtime.serve"]

# ---- the same on a CPU: the steps are those of the target before
FROM ${RUNTIME_CPU_BASE} AS runtime-cpu
USER 0
ENV HOME=/tmp PYTHONPATH=/opt/longshore PYTHONUNBUFFERED=1
COPY --from=vllm-launcher /opt/longshore /opt/longshore
RUN python3 -c 'import longshore_runtime.serve.__main__, longshore_runtime.pull.weights' \
 && python3 -c 'from longshore_runtime.ranges.curl import load_curl; assert load_curl(), "RUNTIME_PYTHON is not this version"' \
 && python3 -m compileall -q /opt/longshore \
 && { python3 -m compileall -qq "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" || true; }
ARG ARCHITECTURES=""
ENV LONGSHORE_VLLM_MODELS=/opt/longshore/vllm-models
RUN python3 -m longshore_runtime.serve.engines.vllm_models "${LONGSHORE_VLLM_MODELS}" ${ARCHITECTURES}
WORKDIR /tmp
USER 1000
ENTRYPOINT ["python3", "-m", "longshore_runtime.serve"]

# ---- llama.cpp on the CPU, and the launcher that starts it. For GPUs, or another build: an image that has llama-server on its
# PATH and Python 3.11, with the packages of this one but xllamacpp.
FROM ${PYTHON_BASE} AS runtime-llamacpp-packages
COPY requirements/runtime-llamacpp.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: \
      --target=/opt/longshore --requirement=/tmp/requirements.txt
COPY runtime/longshore_runtime /opt/longshore/longshore_runtime
RUN python3 -m compileall -q /opt/longshore \
 && PYTHONPATH=/opt/longshore python3 -c 'import longshore_runtime.serve.__main__, longshore_runtime.pull.weights' \
 && PYTHONPATH=/opt/longshore python3 -m longshore_runtime.serve.engines.llamacpp_server --version

FROM ${PYTHON_BASE} AS runtime-llamacpp
COPY --from=runtime-llamacpp-packages /opt/longshore /opt/longshore
ENV HOME=/tmp PYTHONPATH=/opt/longshore PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 1000
ENTRYPOINT ["python3", "-m", "longshore_runtime.serve"]

# ---- SGLang, and the launcher that starts it. Its image brings what the launcher imports but blake3, and the import says so here
# if something else is missing. This target was not built where it was written, since its base could not be had there.
FROM ${SGLANG_BASE} AS runtime-sglang
USER 0
ENV HOME=/tmp PYTHONPATH=/opt/longshore PYTHONUNBUFFERED=1
COPY requirements/runtime-sglang.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: \
      --target=/opt/longshore --requirement=/tmp/requirements.txt
COPY runtime/longshore_runtime /opt/longshore/longshore_runtime
RUN python3 -c 'import longshore_runtime.serve.__main__, longshore_runtime.pull.weights, longshore_runtime.serve.engines.relay' \
 && python3 -m compileall -q /opt/longshore
WORKDIR /tmp
USER 1000
ENTRYPOINT ["python3", "-m", "longshore_runtime.serve"]

# ---- text-generation-inference, and the launcher that starts it. Its image has Python 3.11 for x86-64, and brings too little of what
# the launcher imports; the engine does not see these packages. Its interpreter lies in root's home, where other users must reach it.
# This target was not built where it was written, since its base could not be had there.
FROM ${PYTHON_BASE} AS runtime-tgi-packages
COPY requirements/runtime-tgi.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: \
      --python-version=3.11 --implementation=cp --platform=manylinux2014_x86_64 \
      --target=/opt/longshore --requirement=/tmp/requirements.txt
COPY runtime/longshore_runtime /opt/longshore/longshore_runtime

FROM ${TGI_BASE} AS runtime-tgi
USER 0
ENV HOME=/tmp PYTHONPATH=/opt/longshore PYTHONUNBUFFERED=1 PATH=/usr/src/.venv/bin:${PATH} HF_HOME=/tmp/huggingface
COPY --from=runtime-tgi-packages /opt/longshore /opt/longshore
RUN chmod a+rx /root /root/.local /root/.local/share && chmod -R a+rX /root/.local/share/uv \
 && python3 -c 'import longshore_runtime.serve.__main__, longshore_runtime.pull.weights, longshore_runtime.serve.engines.relay' \
 && python3 -m compileall -q /opt/longshore
WORKDIR /tmp
USER 1000
ENTRYPOINT ["python3", "-m", "longshore_runtime.serve"]

# ---- TensorRT-LLM, and the launcher that starts it. Its image brings what the launcher imports (its own requirements name blake3,
# pydantic and uvicorn), and the import says so here if something is missing. This target was not built where it was written, since
# its base could not be had there.
FROM ${TRTLLM_BASE} AS runtime-trtllm
USER 0
ENV HOME=/tmp PYTHONPATH=/opt/longshore PYTHONUNBUFFERED=1
COPY runtime/longshore_runtime /opt/longshore/longshore_runtime
RUN python3 -c 'import longshore_runtime.serve.__main__, longshore_runtime.pull.weights, longshore_runtime.serve.engines.relay' \
 && python3 -c 'import longshore_runtime.serve.engines.trtllm_server' \
 && python3 -m compileall -q /opt/longshore
WORKDIR /tmp
USER 1000
ENTRYPOINT ["python3", "-m", "longshore_runtime.serve"]

# ---- the command line, for pipelines and jobs
FROM ${PYTHON_BASE} AS tools
COPY --from=tools-packages /opt/longshore /opt/longshore
ENV HOME=/tmp PYTHONPATH=/opt/longshore PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 1000
ENTRYPOINT ["python3", "-m", "longshore"]
