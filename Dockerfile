# One image for `credits worker`, `credits serve` and every other command.
# No Java in it: with CREDITS_KAFKA_BOOTSTRAP_SERVERS set, no local broker is started.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/credits
ENV PATH=/opt/credits/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Dependencies first, each with one version and the hashes of its files: this layer is made again only when they change.
COPY requirements requirements
RUN pip install --require-hashes --requirement requirements/run.txt
COPY pyproject.toml README.md ./
COPY schemas schemas
COPY streams streams
COPY projections projections
RUN pip install --no-deps --no-build-isolation .

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 credits \
    && useradd --uid 10001 --gid credits --home-dir /data --create-home credits
COPY --from=build /opt/credits /opt/credits
ENV PATH=/opt/credits/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CREDITS_DATA_DIR=/data/credits
WORKDIR /data
VOLUME /data
USER credits
ENTRYPOINT ["credits"]
CMD ["--help"]
