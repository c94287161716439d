"""Safety: what a conversation is judged by, and the door every judge stands behind."""
