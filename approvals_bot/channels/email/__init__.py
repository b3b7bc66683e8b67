"""Email, outgoing: a card becomes one mail to one person, with a link to a page that shows it and takes the vote."""
