# An image of the wheel in dist/; docs/containers.md has the commands. Not built yet: see there.
FROM python:3.12-slim

# cpu, or cuda for PyTorch's wheels with CUDA
ARG TORCH=cpu
# names of optional dependencies in pyproject.toml
ARG EXTRAS=audio

# a compiler for the launchers of Triton's kernels
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

RUN pip install --no-cache-dir uv
COPY dist/*.whl /tmp/wheel/
RUN case "$TORCH" in \
      cpu) set -- --torch-backend cpu ;; \
      cuda) set -- ;; \
      *) echo "TORCH is $TORCH; expected cpu or cuda" >&2; exit 1 ;; \
    esac \
    && wheel="$(ls /tmp/wheel/seit-*.whl)" \
    && uv pip install --system --no-cache --compile-bytecode "$@" "seit[$EXTRAS] @ file://$wheel" \
    && rm -rf /tmp/wheel

RUN useradd seit
USER seit
ENV HOME=/tmp/home \
    XDG_CACHE_HOME=/tmp/home/.cache \
    NUMBA_CACHE_DIR=/tmp/home/.numba
WORKDIR /work
ENTRYPOINT ["seit"]
CMD ["--help"]
