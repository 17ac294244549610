# The edge. At the repository's root: docker build -f deploy/docker/edge.Dockerfile -t quern-edge .
# `--target prebuilt` takes bin/image, which `make image-binaries` fills, and compiles nothing.
ARG BASE_IMAGE=debian:12.12-slim
ARG GO_IMAGE=golang:1.26.0-bookworm

# Nothing runs in here, neither now nor later, but the one binary: bases without a shell do as well.
FROM ${BASE_IMAGE} AS runtime
ENV QUERN_HTTP=:8080 QUERN_GRPC=:9090
EXPOSE 8080 9090
# By number: Kubernetes can tell then that it is not root.
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s CMD ["/usr/bin/quern", "healthcheck"]
ENTRYPOINT ["/usr/bin/quern"]
CMD ["serve"]
ARG VERSION=development
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="quern-edge" \
      org.opencontainers.image.description="A data API over files: the edge, REST and gRPC" \
      org.opencontainers.image.source="https://github.com/quern-data/quern" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

FROM runtime AS prebuilt
COPY bin/image/quern.cdx.json /usr/share/doc/quern/sbom.cdx.json
COPY bin/image/quern /usr/bin/quern

# Go compiles for the other processor as fast as for its own, so this stage runs on the builder's.
FROM --platform=${BUILDPLATFORM} ${GO_IMAGE} AS build
RUN GOBIN=/usr/local/bin go install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY go-api go-api
ARG TARGETARCH
ARG VERSION=development
RUN --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOARCH=${TARGETARCH} go build -trimpath \
      -ldflags "-s -w -X github.com/quern-data/quern/go-api/internal/cli.Version=${VERSION}" -o /out/quern ./go-api/cmd/quern \
    && cyclonedx-gomod bin -json -output /out/quern.cdx.json /out/quern

FROM runtime
# Whom to trust when a bucket, a cache or a collector is called by TLS; the base has nobody.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/quern.cdx.json /usr/share/doc/quern/sbom.cdx.json
COPY --from=build /out/quern /usr/bin/quern
