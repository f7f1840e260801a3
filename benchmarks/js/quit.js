// After the answer is out.
setTimeout(() => Services.startup.quit(Services.startup.eAttemptQuit), 200);
return {};
