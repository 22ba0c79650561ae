# The service. Build: docker build -t funduscope .   Run: see compose.yaml and docs/service.md.
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
COPY engine engine
COPY postprocess postprocess
COPY export export
COPY training training
COPY examples examples
RUN python -m venv /opt/funduscope \
    && /opt/funduscope/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[service]' \
    && /opt/funduscope/bin/pip uninstall --yes pip

FROM ${PYTHON}
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin funduscope
COPY --from=build /opt/funduscope /opt/funduscope
ENV PATH=/opt/funduscope/bin:$PATH HOME=/nonexistent ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD \
    ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
ENTRYPOINT ["funduscope", "serve"]
CMD ["--host", "0.0.0.0", "--key-file", "/run/secrets/funduscope_keys"]
