"""PostgreSQL servers: login roles whose passwords are changed, or that are made for one lease."""
