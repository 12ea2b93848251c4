# The gate; with `--build-arg LOCK=requirements-reference.lock` also the embedded PostgreSQL and the reference service.
# Every package comes by its hash; nothing runs as root.
FROM python:3.13-slim-trixie AS build
ARG LOCK=requirements.lock
WORKDIR /src
RUN python -m venv /opt/gate
COPY requirements.lock requirements-reference.lock ./
RUN /opt/gate/bin/pip install --no-cache-dir --require-hashes -r "$LOCK"
COPY pyproject.toml README.md LICENSE ./
COPY gates gates
COPY drills drills
COPY sql_checks sql_checks
COPY loadtests loadtests
COPY replay_service replay_service
COPY faults faults
RUN /opt/gate/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim-trixie
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin gate \
 && install --directory --owner gate --mode 0700 /work /work/gate-out /run/gate
COPY --from=build /opt/gate /opt/gate
COPY gate.yaml /work/gate.yaml
ENV PATH=/opt/gate/bin:$PATH HOME=/work PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
USER 10001
ENTRYPOINT ["gate"]
CMD ["--help"]
