"""OpenAI's fine-tuning API on this service's own worker: files in, an adapter out, served under its `ft:` name."""
