"""The email channel: each card becomes a mail to one person, with a link to the page where they vote."""
