"""The responder: answers http-01 on port 80 where no web server does. Standard library only."""
