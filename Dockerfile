# Two stages: wheels are installed where pip is, and run where it is not.
FROM python:3.12-slim AS build
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock
COPY schemas schemas
COPY detectors detectors
COPY sinks sinks
COPY dataflows dataflows
COPY bench bench
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.12-slim
COPY --from=build /venv /venv
RUN useradd --uid 10001 --create-home stayline && mkdir /data && chown stayline /data
USER 10001
WORKDIR /data
ENV NUMBA_CACHE_DIR=/tmp/numba PYTHONFAULTHANDLER=1
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["/venv/bin/stayline"]
CMD ["run", "-c", "/etc/stayline/stayline.toml"]
