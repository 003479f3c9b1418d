@echo off
rem winvm: run once, by the first logon, from the software medium. It installs Cygwin
rem with its SSH server and this image's keys, and makes the settings that winnt.sif
rem has no keys for. What it does is told on COM1.
setlocal
set medium=%~d0\winvm
if not exist C:\winvm mkdir C:\winvm
set log=C:\winvm\first-logon.log
echo winvm-install: first logon>COM1

rem No time from the network, no updates, no sleep; a crash stays on the screen.
sc config w32time start= disabled >>%log% 2>&1
sc config wuauserv start= disabled >>%log% 2>&1
powercfg /change "Always On" /standby-timeout-ac 0 >>%log% 2>&1
powercfg /change "Always On" /monitor-timeout-ac 0 >>%log% 2>&1
powercfg /setactive "Always On" >>%log% 2>&1
powercfg /hibernate off >>%log% 2>&1
reg add HKLM\SYSTEM\CurrentControlSet\Control\CrashControl /v AutoReboot /t REG_DWORD /d 0 /f >>%log% 2>&1
rem NTLMv2, and drives that are not disconnected.
reg add HKLM\SYSTEM\CurrentControlSet\Control\Lsa /v LmCompatibilityLevel /t REG_DWORD /d 3 /f >>%log% 2>&1
reg add HKLM\SYSTEM\CurrentControlSet\Services\LanmanWorkstation\Parameters /v KeepConn /t REG_DWORD /d 65535 /f >>%log% 2>&1

"%medium%\cygwin\setup.exe" -q -n -N -d -A -L -l "%medium%\cygwin" -R C:\cygwin -P openssh,cygrunsrv >>%log% 2>&1
if not exist C:\cygwin\bin\bash.exe set what=Cygwin was not installed& goto failed
for %%f in (ssh_host_ed25519_key ssh_host_ed25519_key.pub authorized_keys sshd_config fstab) do copy /y "%medium%\keys\%%f" C:\cygwin\etc\%%f >>%log% 2>&1
if errorlevel 1 set what=the keys can not be copied& goto failed
C:\cygwin\bin\bash.exe -l -c "mkpasswd -l >/etc/passwd; mkgroup -l >/etc/group; mkdir -p /var/empty /var/log; chmod 600 /etc/ssh_host_ed25519_key; chmod 755 /var/empty" >>%log% 2>&1
C:\cygwin\bin\cygrunsrv.exe -I sshd -d "CYGWIN sshd" -p /usr/sbin/sshd -a "-D" -y tcpip >>%log% 2>&1
if errorlevel 1 set what=sshd can not be made a service& goto failed
net start sshd >>%log% 2>&1
if errorlevel 1 set what=sshd does not start& goto failed
echo winvm-install: sshd is up>COM1
exit /b 0

:failed
echo winvm-install: failed: %what%>COM1
exit /b 1
