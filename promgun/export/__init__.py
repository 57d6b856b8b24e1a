"""What to put beside a server: dashboard, rules, scrape job, Kubernetes objects, a systemd unit; each as text."""
