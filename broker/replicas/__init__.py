"""Many equal replicas on one database: who is there, whose clock is right, who does what needs doing once."""
