"""What others plug in: alert rules for Prometheus and dashboards for Grafana, generated from one source (`make observability`)."""
