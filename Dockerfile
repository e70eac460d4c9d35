# syntax=docker/dockerfile:1
# One image for everything: worker, topics, migrations, load generator. Kernels are compiled while it is built.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/adledger
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY adledger adledger
COPY pipeline pipeline
COPY schemas schemas
COPY sinks sinks
COPY loadtest loadtest
RUN /opt/adledger/bin/pip install --constraint constraints.txt .

# What is compiled for one CPU is not used on another. `generic` runs everywhere; name the CPU of your fleet (as LLVM
# does: x86-64-v3, znver4, neoverse-v2) to have its instructions, or "" for the machine that builds.
ARG KERNEL_CPU=generic
ENV ADLEDGER_KERNEL_CACHE=/opt/adledger/kernels NUMBA_CPU_NAME=${KERNEL_CPU} NUMBA_CPU_FEATURES=
RUN /opt/adledger/bin/python -c "from adledger.pipeline.lanes.warm import compile_kernels; from adledger.pipeline.rules.loader import load_rules; compile_kernels(load_rules('default'))" \
    && /opt/adledger/bin/python -c "from adledger.loadtest.traffic.generator import Generator; from adledger.loadtest.traffic.model import TrafficModel; list(Generator(TrafficModel(seed=1, events=1000, partitions=1)).chunks())"


FROM python:3.11-slim-bookworm
ARG KERNEL_CPU=generic
ENV PATH=/opt/adledger/bin:$PATH PYTHONUNBUFFERED=1 \
    ADLEDGER_KERNEL_CACHE=/opt/adledger/kernels NUMBA_CPU_NAME=${KERNEL_CPU} NUMBA_CPU_FEATURES=
RUN useradd --system --uid 10001 --create-home adledger
# The cache is the user's: a kernel that was not compiled above is added to it at its first use.
COPY --from=build --chown=adledger /opt/adledger /opt/adledger
USER adledger
WORKDIR /home/adledger
EXPOSE 6066
STOPSIGNAL SIGTERM
ENTRYPOINT ["adledger"]
CMD ["run"]
