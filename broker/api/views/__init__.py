"""What travels in bodies: requests and answers as types, and how records become answers. Nothing here decides.

Requests refuse unknown fields; the bounds in their schemas are checked by the services, whose messages say more.
"""
