# syntax=docker/dockerfile:1

# The sidecar as a static binary in an image with nothing else but certificates.
#   docker build -t gotrue-sidecar .
# Cross-compiled, never emulated: --platform linux/amd64 or linux/arm64, whichever the builder is.
# Pinned by tag, so that security updates of the compiler's base arrive; pin a digest for your own releases.
ARG BUILD_BASE=rust:1.95-slim-bookworm
# Any base works, distroless "static" for one: the binary needs no file.
ARG RUNTIME_BASE=scratch

FROM --platform=$BUILDPLATFORM ${BUILD_BASE} AS build
ARG TARGETARCH
# C parts (TLS, allocator) are compiled against musl's headers. Their versions are the base's.
# hadolint ignore=DL3008
RUN set -eu; \
    case "$TARGETARCH" in \
      amd64) cpu=x86_64; cross=gcc-x86-64-linux-gnu ;; \
      arm64) cpu=aarch64; cross=gcc-aarch64-linux-gnu ;; \
      *) echo "TARGETARCH is \"$TARGETARCH\", expected amd64 or arm64" >&2; exit 1 ;; \
    esac; \
    if [ "$TARGETARCH" = "$(dpkg --print-architecture)" ]; then cross=gcc; else dpkg --add-architecture "$TARGETARCH"; fi; \
    apt-get update; \
    apt-get install -y --no-install-recommends "$cross" libc6-dev "musl-dev:$TARGETARCH" ca-certificates; \
    rm -rf /var/lib/apt/lists/*; \
    printf '#!/bin/sh\nexec %s-linux-gnu-gcc -specs=/usr/lib/%s-linux-musl/musl-gcc.specs "$@"\n' "$cpu" "$cpu" \
      > /usr/local/bin/musl-cc; \
    chmod +x /usr/local/bin/musl-cc
WORKDIR /src
COPY Cargo.toml Cargo.lock sidecar.yaml ./
COPY src ./src
# Another Rust target than TARGETARCH's musl one; the result must be static all the same.
ARG RUST_TARGET=""
# The sources are touched because target/ outlives them: an older checkout must not pass for built.
RUN --mount=type=cache,target=/src/target,id=gotrue-sidecar-target-${TARGETARCH},sharing=locked \
    --mount=type=cache,target=/usr/local/cargo/registry,id=gotrue-sidecar-registry,sharing=locked \
    set -eu; \
    case "$TARGETARCH" in amd64) cpu=x86_64 ;; arm64) cpu=aarch64 ;; esac; \
    target="${RUST_TARGET:-$cpu-unknown-linux-musl}"; \
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || rustup target add "$target"; \
    case "$target" in *-musl) export TARGET_CC=musl-cc ;; *) export TARGET_CC="$cpu-linux-gnu-gcc" ;; esac; \
    export RUSTFLAGS="-C target-feature=+crt-static -C linker=$cpu-linux-gnu-gcc"; \
    touch src/*.rs; \
    cargo build --release --locked --bin gotrue-sidecar --target "$target"; \
    install -D "target/$target/release/gotrue-sidecar" /out/sidecar

FROM ${RUNTIME_BASE}
ARG VERSION=unversioned
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gotrue-sidecar" \
      org.opencontainers.image.description="A reverse proxy beside GoTrue that gives it server-side sessions" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# For https upstreams and rediss stores with public certificates.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/sidecar /sidecar
# By number, so that Kubernetes can tell that it is not root; not 1000, which is GoTrue's.
USER 65532:65532
# Public listener; probes and metrics.
EXPOSE 9999 9464
HEALTHCHECK --interval=10s --timeout=2s --start-period=5s CMD ["/sidecar", "healthcheck"]
ENTRYPOINT ["/sidecar"]
CMD ["serve"]
