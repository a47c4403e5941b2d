# Two stages: wheels are installed where pip is, and run where it is not, without what tests and tools need. A deployer
# pins the base by digest (--build-arg PYTHON=python:3.12.11-slim-bookworm@sha256:...).
ARG PYTHON=python:3.12.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /app
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements-run.lock pyproject.toml README.md LICENSE ./
RUN python -m venv /venv && /venv/bin/pip install --require-hashes --only-binary :all: -r requirements-run.lock
COPY schemas schemas
COPY detectors detectors
COPY sinks sinks
COPY dataflows dataflows
COPY bench bench
RUN /venv/bin/pip install --no-deps --no-build-isolation . \
    && /venv/bin/pip uninstall --yes setuptools pip \
    && /venv/bin/python -m compileall -q /venv
# The hot loops are compiled here, by letting a telco run through them, for any processor of this architecture: code for
# the very one that builds would be of no use elsewhere, and decodes a tenth faster.
ENV NUMBA_CPU_NAME=generic
RUN /venv/bin/stayline simulate --customers 3000 --days 8 --seed 7 --out /tmp/telco \
    && /venv/bin/stayline replay /tmp/telco/events.ndjson --alerts /tmp/telco/alerts

FROM ${PYTHON}
COPY --from=build /venv /venv
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin stayline \
    && mkdir --mode=0700 /data && chown stayline /data
USER 10001:10001
WORKDIR /data
ENV HOME=/tmp NUMBA_CACHE_DIR=/data/kernels NUMBA_CPU_NAME=generic PYTHONFAULTHANDLER=1 PYTHONDONTWRITEBYTECODE=1
VOLUME /data
EXPOSE 9100
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s \
    CMD ["/venv/bin/python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9100/healthz', timeout=3)"]
ENTRYPOINT ["/venv/bin/stayline"]
CMD ["run", "-c", "/etc/stayline/stayline.toml"]
