// Read before anything else; where the AutoConfig file is, and what is needed before it runs.
pref("general.config.filename", "mailbox.cfg");
pref("general.config.obscure_value", 0);
pref("general.config.sandbox_enabled", false);
// A power cut must never end in a question about safe mode.
pref("toolkit.startup.max_resumed_crashes", -1);
