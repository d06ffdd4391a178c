# The core: triage, training of histogram models, no plots, no DICOM, no networks to train.
#
#   docker build -t histcxr .
#   docker run --rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges \
#       --tmpfs /tmp --user "$(id -u):$(id -g)" -v "$PWD/INCOMING:/in:ro" -v "$PWD/out:/out" \
#       histcxr triage /in -o /out/worklist.csv
#
# More: --build-arg EXTRAS=report,dicom
FROM python:3.12-slim AS build
ARG EXTRAS=""
WORKDIR /src
COPY . .
RUN python -m venv /opt/histcxr \
    && /opt/histcxr/bin/pip install --no-cache-dir --no-compile -c constraints.txt ".${EXTRAS:+[$EXTRAS]}" \
    && /opt/histcxr/bin/python -m compileall -q /opt/histcxr

FROM python:3.12-slim
COPY --from=build /opt/histcxr /opt/histcxr
# Nobody's home, no network, nothing written but to what is mounted: /out and, for what is passing, /tmp.
ENV PATH=/opt/histcxr/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
USER 65532:65532
WORKDIR /out
ENTRYPOINT ["histcxr"]
CMD ["--help"]
