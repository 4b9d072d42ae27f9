# docker build -t langevin . && docker run -v "$PWD:/work" -p 7860:7860 langevin serve runs/digits-1 --host 0.0.0.0
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package langevin-cli

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/langevin /usr/local/bin/langevin
# Not root, and the folder that is mounted is where runs and pictures go.
RUN useradd --create-home langevin
USER langevin
WORKDIR /work
ENTRYPOINT ["langevin"]
