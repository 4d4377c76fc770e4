"""Text to messages: prompt files, templates, digests, and the seam to every model. Imports nothing of ours."""
