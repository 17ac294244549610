# The engine. At the repository's root: docker build -f deploy/docker/engine.Dockerfile -t quern-engine .
# `--target prebuilt` takes bin/image, which `make image-binaries` fills, and compiles nothing.
ARG BASE_IMAGE=debian:12.12-slim
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm

# Nothing runs in here, neither now nor later, but the one binary: bases without a shell do as well, with glibc 2.36 or newer.
FROM ${BASE_IMAGE} AS runtime
ENV QUERN_ENGINE_LISTEN=tcp://0.0.0.0:9091 QUERN_SPILL_DIR=/scratch
EXPOSE 9091
# By number: Kubernetes can tell then that it is not root.
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s CMD ["/usr/bin/quern-engine", "healthcheck"]
ENTRYPOINT ["/usr/bin/quern-engine"]
CMD ["/data"]
ARG VERSION=development
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="quern-engine" \
      org.opencontainers.image.description="A data API over files: the engine, which reads, plans and executes" \
      org.opencontainers.image.source="https://github.com/quern-data/quern" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# A volume that is made for /scratch gets the owner of this folder.
FROM runtime AS prebuilt
COPY --chown=65532:65532 bin/image/scratch /scratch
COPY bin/image/quern-engine.cdx.json /usr/share/doc/quern-engine/sbom.cdx.json
COPY bin/image/quern-engine /usr/bin/quern-engine

FROM ${RUST_IMAGE} AS build
# The image's own toolchain, without the components that development wants.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN cargo install --locked --version 0.5.9 cargo-cyclonedx
WORKDIR /src
COPY proto proto
COPY rust-engine rust-engine
# What was compiled stays in the builder's cache: a change of the engine's own code does not compile DataFusion again.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/target,sharing=locked \
    cd rust-engine && CARGO_TARGET_DIR=/target cargo build --locked --release --bin quern-engine \
    && cargo cyclonedx --format json --describe binaries --manifest-path crates/server/Cargo.toml \
    && mkdir -p /out/scratch && cp /target/release/quern-engine /out/ \
    && cp crates/server/quern-engine_bin.cdx.json /out/quern-engine.cdx.json

FROM runtime
# Whom to trust when a bucket, a cache or a collector is called by TLS; the base has nobody.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /out/scratch /scratch
COPY --from=build /out/quern-engine.cdx.json /usr/share/doc/quern-engine/sbom.cdx.json
COPY --from=build /out/quern-engine /usr/bin/quern-engine
