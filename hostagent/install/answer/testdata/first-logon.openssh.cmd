@echo off
rem winvm: run once, by the first logon, from the software medium. It installs the
rem SSH server with this image's keys. What it does is told on COM1.
setlocal
set medium=%~d0\winvm
set server=C:\Program Files\OpenSSH
set data=C:\ProgramData\ssh
if not exist C:\winvm mkdir C:\winvm
set log=C:\winvm\first-logon.log
echo winvm-install: first logon>COM1

xcopy "%medium%\OpenSSH" "%server%\" /e /i /q /y >>%log% 2>&1
if errorlevel 1 set what=OpenSSH can not be copied& goto failed
if not exist "%data%" mkdir "%data%"
for %%f in (ssh_host_ed25519_key ssh_host_ed25519_key.pub sshd_config) do copy /y "%medium%\keys\%%f" "%data%\%%f" >>%log% 2>&1
copy /y "%medium%\keys\authorized_keys" "%data%\administrators_authorized_keys" >>%log% 2>&1
if errorlevel 1 set what=the keys can not be copied& goto failed
rem Only the system and administrators (S-1-5-18, S-1-5-32-544) may have the keys.
for %%f in (ssh_host_ed25519_key administrators_authorized_keys) do icacls.exe "%data%\%%f" /inheritance:r /grant *S-1-5-18:F /grant *S-1-5-32-544:F >>%log% 2>&1

powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -File "%server%\install-sshd.ps1" >>%log% 2>&1
if errorlevel 1 set what=install-sshd.ps1 failed& goto failed
reg.exe add HKLM\SOFTWARE\OpenSSH /v DefaultShell /t REG_SZ /d C:\Windows\System32\cmd.exe /f >>%log% 2>&1
sc.exe config sshd start= auto >>%log% 2>&1
net.exe start sshd >>%log% 2>&1
if errorlevel 1 set what=sshd does not start& goto failed
sc.exe query sshd | find.exe "RUNNING" >>%log% 2>&1
if errorlevel 1 set what=sshd does not run& goto failed
echo winvm-install: sshd is up>COM1
exit /b 0

:failed
echo winvm-install: failed: %what%>COM1
exit /b 1
