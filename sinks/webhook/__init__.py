"""Signed notifications over HTTP, to receivers that may fail, lie, or be somewhere they must not be."""

from sinks.webhook.output import WebhookOutput

__all__ = ["WebhookOutput"]
