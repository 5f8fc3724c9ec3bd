"""Tells people what was found and decided, once, through mail, chats, pagers and webhooks."""
