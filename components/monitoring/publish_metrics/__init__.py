"""Publishes drift, performance and decisions as metrics, through a Prometheus Pushgateway."""
