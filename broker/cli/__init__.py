"""`tokenbroker`, the operator's command. `main` finds the command, each group of commands has its own module.

What an operator asks is decided elsewhere: admin commands speak HTTP to a running broker (`client`), the others call
`broker.setup`, `broker.app`, `broker.doctor`, `broker.audit` and `broker.demo`. Here is only what he types and reads.
"""
