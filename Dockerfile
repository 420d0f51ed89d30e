# One image for `credits worker`, `credits serve` and every other command.
# No Java in it: with CREDITS_KAFKA_BOOTSTRAP_SERVERS set, no local broker is started.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/credits
ENV PATH=/opt/credits/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Dependencies first: this layer is made again only when pyproject.toml or README.md change.
COPY pyproject.toml README.md ./
RUN mkdir schemas streams projections \
    && touch schemas/__init__.py streams/__init__.py projections/__init__.py \
    && pip install .
COPY schemas schemas
COPY streams streams
COPY projections projections
RUN rm -rf build && pip install --no-deps --force-reinstall .

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
