# One image for every Dagster process; docker-compose.yml says which process runs.
FROM python:3.11-slim

ENV DO_NOT_TRACK=1 \
    DAGSTER_DISABLE_TELEMETRY=1 \
    DBT_SEND_ANONYMOUS_USAGE_STATS=false \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    QP_HOME=/var/lib/quant_platform \
    DAGSTER_HOME=/var/lib/quant_platform/dagster

WORKDIR /opt/quant_platform

COPY requirements.lock ./
RUN pip install --no-cache-dir uv \
    && uv pip install --system --no-cache --require-hashes -r requirements.lock

COPY . .
RUN uv pip install --system --no-cache --no-deps -e . \
    && dbt --quiet parse --project-dir dbt_project --profiles-dir dbt_project \
    && python -c "from quant_platform.defs import dbt_runner, dbt_specs; dbt_specs.specs(dbt_runner.manifest())" \
    && useradd --system --no-create-home --uid 10001 quant \
    && mkdir -p "$DAGSTER_HOME" \
    && chown -R quant "$QP_HOME" dbt_project

USER quant
VOLUME /var/lib/quant_platform

# An existing volume gets this image's dagster.yaml too.
ENTRYPOINT ["sh", "-c", "mkdir -p \"$DAGSTER_HOME\" && cp dagster.yaml \"$DAGSTER_HOME/\" && exec \"$@\"", "--"]
CMD ["qp", "--help"]
