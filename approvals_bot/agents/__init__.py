"""Agents inside workflows: tool calls that wait for people, and the booking chat."""
